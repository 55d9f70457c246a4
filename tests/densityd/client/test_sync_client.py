import subprocess
import sys


def test_the_synchronous_client_is_generated_from_the_asynchronous_one():
    subprocess.run([sys.executable, "tools/sync_client.py", "--check"], check=True)
