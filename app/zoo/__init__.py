"""The zoo: records, rules and files, shared by the HTTP front end, the workers and the serving process.

No FastAPI and no torch. The row is the truth: everything a process must know is
in the database, and everything large is an immutable object named by its digest.
"""
