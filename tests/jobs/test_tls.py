"""Sources over TLS: a certificate that is trusted, and one that is not."""

import os
import shutil
import ssl
import threading
from http.server import ThreadingHTTPServer

import pytest

from headgate.jobs.errors import InputMissing
from tests.jobs.test_pulled import ALL, HTTP, JDBC, Api, pipeline, postgres  # noqa: F401  (a fixture)
from tests.lakes import rows, run_pipeline
from tests.servers import certificate

pytestmark = pytest.mark.slow


@pytest.fixture
def encrypted(postgres, tmp_path, monkeypatch):  # noqa: F811
    """A PostgreSQL that takes nothing but TLS, and the certificate that it shows."""
    pem = certificate(tmp_path)
    file = postgres.data / "server.pem"
    shutil.copy(pem, file)
    file.chmod(0o600)
    shutil.chown(file, "postgres") if os.geteuid() == 0 else None
    for setting in (f"ssl_cert_file = '{file}'", f"ssl_key_file = '{file}'", "ssl = on"):
        postgres.sql(f"alter system set {setting}")
    access = postgres.data / "pg_hba.conf"
    access.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    postgres.sql("select pg_reload_conf()")
    monkeypatch.setenv("PG_USER", "postgres")
    monkeypatch.setenv("PG_PASSWORD", postgres.secret)
    return postgres, pem


def trusted(pem):
    """A file with the certificate alone, without its key."""
    file = pem.with_name("trusted.pem")
    file.write_text(pem.read_text().partition("-----BEGIN EC")[0])
    return file


def test_a_database_is_read_where_its_certificate_is_trusted(spark, encrypted, tmp_path):
    postgres, pem = encrypted  # noqa: F811
    other = tmp_path / "other"
    other.mkdir()
    for options, told in (
        ("sslmode=disable", "no encryption"),
        (f"sslmode=verify-full&sslrootcert={trusted(certificate(other))}", "SSL error"),
        (f"sslmode=verify-full&sslrootcert={trusted(pem)}", None),
    ):
        query = "query: select 1 as id from pg_stat_ssl where ssl and pid = pg_backend_pid()"
        file = pipeline(tmp_path, JDBC.format(url=f"{postgres.url}?{options}") + query)
        if told:
            with pytest.raises(InputMissing, match=told):
                run_pipeline(spark, tmp_path, file)
        else:
            run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "id") == [(1,)]


def test_an_api_is_read_where_its_certificate_is_trusted(spark, tmp_path, monkeypatch):
    pem = certificate(tmp_path)
    monkeypatch.setenv("API_TOKEN", "Bearer s3cret-of-api")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.state = {"fails": [], "failed": set(), "asked": [], "records": list(ALL)}
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = HTTP.format(url=f"https://127.0.0.1:{server.server_port}/link") + "retries: 0, paging: {by: link}"
    file = pipeline(tmp_path, source)
    with pytest.raises(InputMissing, match="SSLError") as e:
        run_pipeline(spark, tmp_path, file)
    assert "\n" not in str(e.value) and server.state["asked"] == []
    monkeypatch.setitem(spark.sparkContext.environment, "REQUESTS_CA_BUNDLE", str(pem))  # of the Python workers
    run_pipeline(spark, tmp_path, file)
    assert len(rows(tmp_path, "id")) == len(ALL)
    server.shutdown()
