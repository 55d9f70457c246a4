"""Table and model of the examples in the OpenAPI document, so that one example can be tried after another."""

COLUMNS = ["height", "weight"]  # in centimetres and kilograms
TABLE = [
    [171.5, 68.2],
    [180.1, 80.9],
    [165.0, 55.3],
    [177.7, 71.0],
    [161.4, 55.2],
    [178.0, 60.7],
    [170.7, 55.5],
    [181.9, 78.6],
    [184.2, 76.1],
    [175.6, 71.0],
    [165.4, 65.9],
    [160.7, 59.4],
    [178.3, 75.1],
    [168.3, 80.4],
    [172.5, 66.9],
    [173.4, 67.9],
    [168.5, 65.3],
    [190.2, 83.8],
    [173.6, 75.2],
    [190.2, 82.3],
    [166.4, 80.6],
    [158.9, 58.0],
    [178.0, 88.2],
    [163.5, 49.1],
    [178.0, 71.4],
    [168.5, 70.1],
    [174.0, 73.2],
    [168.1, 74.8],
    [185.5, 80.3],
    [167.9, 71.3],
]
"""Rows of the table that the example of an upload has, enough to train a model."""

ROWS = [[171.5, 68.2], [180.1, 45.0]]
"""A usual row and one that is not."""

NOISE = [[0.1, -0.4], [1.5, 0.2]]

MODEL = "people"
EXAMPLE_DESCRIPTION = "Heights in cm, weights in kg"
EXAMPLE_TAGS = {"team": "health"}
DATASET_ID = "ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"
