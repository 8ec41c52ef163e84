"""How Alembic runs our migrations: on the connection that `store/migrate.py` hands over, in its transaction."""

from alembic import context

from chatport.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
