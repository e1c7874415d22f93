"""The functions `encode_text` and `encode_image` inside ClickHouse, and their deployment.

`worker`, `pictures`, `rowbinary` and `options` run in processes of the ClickHouse server, packed
by `bundle` into one file together with the encoders; they import nothing else of this package.
"""
