"""The way out: addresses and secrets that cannot be printed by accident, and the one place where HTTP clients are made.

| module | what |
|---|---|
| `secret` | `Secret`: a token or password; `hide` takes known secrets out of words that others wrote |
| `address` | `Address`: one URL without its credentials; what `ollama_url`, `mlflow_url` and the like may hold |
| `proxies` | which proxy, if any, leads to an address |
| `clients` | `open_client`: certificates, proxies, credentials and timeouts; what an error of httpx means in words |

`secret`, `address` and `proxies` need the standard library only.
"""
