"""Uploads of tables, and one with columns of all types."""

from tests.api.conftest import CSV, TABLE

MIXED = (
    b",name,size,born,price,zip,note\n"
    + b"".join(
        b'%d,"n%d, x",%s,%02d/03/2021,"%d,%02d",0%d,\n'
        % (i + 1, i, b"SML"[i % 3 : i % 3 + 1], i % 28 + 1, i * 7, i % 100, i % 4)
        for i in range(60)
    )
    + b'61,"n\n60",M,,"1,5",01,\n'
)


def upload(client, body=TABLE, headers=CSV, **params):
    return client.post("/v1/datasets", content=body, headers=headers, params=params)
