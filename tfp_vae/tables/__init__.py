"""Tables with columns of all kinds: pandas DataFrames become the parts of x, and parts DataFrames.

>>> import pandas
>>> frame = pandas.DataFrame({"age": [31, 45, 27], "job": ["cook", "clerk", "cook"]})
>>> table = Table.of(frame)
>>> table.encode(frame)
{'age': array([ 4., 18.,  0.], dtype=float32), 'job': array([1., 0., 1.], dtype=float32)}
>>> table.decode(table.encode(frame)).equals(frame)
True
"""

from tfp_vae.tables.files import expect_no_condition, is_table_file, load, read, write
from tfp_vae.tables.table import Table, is_frame

__all__ = [
    "Table",
    "expect_no_condition",
    "is_frame",
    "is_table_file",
    "load",
    "read",
    "write",
]
