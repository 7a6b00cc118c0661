"""A key that nothing reads, mostly a slip of the keyboard.

It would be passed over without a word, and the rule would do less than it says.

    then: {severty: critical}     # wrong
    then: {severity: critical}    # right
"""
