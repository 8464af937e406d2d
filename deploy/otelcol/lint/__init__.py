"""Finds every setting of a collector configuration that can lose, alter or delay an audit record.

`python -m deploy.otelcol.lint` from the top of the repository; `--rules` lists the rules with their reasons.
It needs no collector, so it also runs where none can be built. It needs PyYAML, which is a development dependency.
"""
