"""`chatport chat`: a conversation in the terminal, with the local server or with any other one."""
