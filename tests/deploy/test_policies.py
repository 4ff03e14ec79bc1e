"""The policies of deploy/policies are enough, and not more: by a store that enforces them."""

import contextlib
import os
import socket
import subprocess
import sys

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.conftest import ROOT
from tests.lakes import write_pipeline
from tests.waiting import soon

POLICIES = ("s3-land", "s3-run", "s3-read")


@pytest.fixture(scope="module")
def users():
    """A store, and the keys of a user for each policy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        with_url = {"endpoint_url": url, "region_name": "us-east-1"}

        def answers():
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"{url}/moto-api", timeout=60).ok

        soon(answers, f"{url} answers")
        root = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
        for bucket in ("lake", "landing"):
            boto3.client("s3", **with_url, **root).create_bucket(Bucket=bucket)
        iam, keys = boto3.client("iam", **with_url, **root), {}
        for name in POLICIES:
            iam.create_user(UserName=name)
            document = (ROOT / "deploy" / "policies" / f"{name}.json").read_text()
            # In AWS the right to list a bucket is the right to ask for its head; this store has a name for that.
            document = document.replace('"s3:ListBucket"', '"s3:ListBucket", "s3:HeadBucket"')
            made = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]
            iam.attach_user_policy(UserName=name, PolicyArn=made["Arn"])
            key = iam.create_access_key(UserName=name)["AccessKey"]
            keys[name] = key["AccessKeyId"], key["SecretAccessKey"]
        requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=5)
        yield url, keys
    finally:
        server.kill()
        server.wait()


def refused(users, name, bucket, do):
    """Return whether a user may not `do` something with an object of a bucket."""
    url, keys = users
    access, secret = keys[name]
    once = Config(retries={"max_attempts": 1})
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=access, config=once,
                          aws_secret_access_key=secret)  # fmt: skip
    place = {"Bucket": bucket, "Key": "shop/in/a.csv"}
    try:
        client.put_object(**place, Body=b"i\n1\n2\n") if do == "put" else client.get_object(**place)
    except ClientError as e:
        assert e.response["Error"]["Code"] in ("AccessDenied", "403"), e
        return True
    return False


def test_objects_are_written_and_read_by_those_who_may(users):
    assert not refused(users, "s3-land", "landing", "put")
    assert refused(users, "s3-land", "landing", "get") and refused(users, "s3-land", "lake", "put")
    assert not refused(users, "s3-run", "landing", "get") and refused(users, "s3-run", "landing", "put")
    assert not refused(users, "s3-run", "lake", "put") and not refused(users, "s3-read", "lake", "get")
    assert refused(users, "s3-read", "lake", "put") and refused(users, "s3-read", "landing", "get")


@pytest.mark.slow
def test_headgate_runs_and_is_read_with_no_more_than_the_policies(users, tmp_path):
    url, keys = users
    assert not refused(users, "s3-land", "landing", "put")
    write_pipeline(tmp_path, "  t: {source: {format: csv, path: 'in/*.csv', schema: 'i INT'}, suite: any}\n")
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "local.yaml").write_text(
        f"lake: s3://lake/shop\nlanding: s3://landing/shop\nstore:\n  endpoint: {url}\n  allow_http: true\n"
        "  access_key: {env: K}\n  secret_key: {env: S}\nspark: {spark.master: 'local[2]'}\n"
    )

    def command(name, *arguments):
        access, secret = keys[name]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "K": access, "S": secret}
        line = [sys.executable, "-m", "headgate", *arguments]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)

    lake = ("--env", "local")
    built = command("s3-run", "run", "p.yaml", *lake)
    assert built.returncode == 0, built.stderr
    for arguments in (("verify", "latest"), ("vacuum",), ("sql", "select count(*) as n from t")):
        done = command("s3-run", *arguments, *lake)
        assert done.returncode == 0, (arguments, done.stderr)
    read = command("s3-read", "sql", "select sum(i) as s from t", "--csv", *lake)
    assert read.returncode == 0 and "3" in read.stdout, read.stderr
    assert command("s3-read", "verify", "latest", *lake).returncode == 0
    assert command("s3-read", "run", "p.yaml", "--rebuild", *lake).returncode == 4
