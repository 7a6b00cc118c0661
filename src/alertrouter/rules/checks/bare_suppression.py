"""A suppression or a drop without an owner, a reason or an end.

Whoever looks for a missing page at night must find whom to ask, why it is off, and until when. What ends by itself
cannot be forgotten.

    - rule: staging-dns-noise
      owner: team-sre
      when: event.summary matches part 'DNS timeout' and event.custom_details.env == 'staging'
      then: {suppress: true, reason: "resolver moves, OPS-1423", expires: 2027-03-31}
"""
