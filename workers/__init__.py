"""Who does the work, and with what stubbornness?"""
