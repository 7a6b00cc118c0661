"""A regular expression that RE2 does not accept.

RE2 answers in a time that grows with the text only, so it has no look-ahead, no look-behind and no back-references.
Join two tests instead.

    when: event.summary matches regex '^(?!test).*disk'                                      # wrong
    when: event.summary matches part 'disk' and not event.summary matches regex '^test'      # right
"""
