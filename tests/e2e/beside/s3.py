"""An S3 server on port 9000 with the bucket `tipbench`; it takes any key."""

import threading

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="0.0.0.0", port=9000, verbose=False)
server.start()
boto3.client("s3", endpoint_url="http://127.0.0.1:9000", region_name="us-east-1").create_bucket(Bucket="tipbench")
print("ready", flush=True)
threading.Event().wait()
