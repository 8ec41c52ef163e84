"""The rules: who may ask, what for, and where it goes. Time comes in as a number; nothing here knows HTTP."""
