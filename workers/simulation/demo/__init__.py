"""What does a newcomer see first?  A sample marketplace with a past, and its alerts falling due while one watches."""
