"""How an answer is read out of a reply and compared with the right one, type by type.
`franken.tasks.grading` is the door.
"""
