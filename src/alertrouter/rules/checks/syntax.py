"""The file cannot be read as what it should be.

It is no YAML, a key holds the wrong kind of value, something required is left out, or a condition is not written in the
PagerDuty Condition Language. The message names the form that was meant.

    when: event.custom_details.env != 'staging'        # wrong
    when: not event.custom_details.env == 'staging'    # right
"""
