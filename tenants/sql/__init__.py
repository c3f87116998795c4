"""The control store over SQL: `store.open_store`; `reader` is for workers while the bus is down."""
