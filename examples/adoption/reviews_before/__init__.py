"""Product reviews, as a team wrote them before it knew of Seamline. Nothing here imports it."""
