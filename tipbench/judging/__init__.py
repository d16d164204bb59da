"""The exchange file, blinding, judges and their agreement."""
