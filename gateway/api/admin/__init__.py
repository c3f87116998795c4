"""The admin API: `app.admin_app` makes it from `dependencies.AdminDependencies`."""
