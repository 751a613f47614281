"""What carries out the trainings of a sweep."""
