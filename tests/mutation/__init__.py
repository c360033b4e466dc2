"""
The mutation score of the core: how many small changes of its functions the tests of the core notice.

``python -m tests.mutation --write docs/proof.md`` tries them all, ``--every 50`` a sample. Source: the operators that suffice, and the
deletion of statements (Offutt et al., An Experimental Determination of Sufficient Mutant Operators, 1996; Deng et al., Empirical
Evaluation of the Statement Deletion Mutation Operator, 2013).
"""
