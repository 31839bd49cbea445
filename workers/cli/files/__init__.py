"""The files of other programs: BrickLink's XML and JSON, BrickStore's, BrickStock's and BrickSync's BSX."""
