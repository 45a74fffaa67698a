"""Tools of the project's own: nothing here is part of the package that users install."""
