"""Images whose geometry stands in a text header: NRRD and MetaImage."""
