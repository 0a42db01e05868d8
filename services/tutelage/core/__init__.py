"""The mathematics of learning from a teacher's marks: pure torch, no models, no I/O, nothing else of this project.

A loss is states x support x target x divergence (or estimator, or credit) x weights, and each factor is a module:

    batch         the rows that are learned from, with the teacher's signals
    support       over which tokens student and teacher are compared
    targets       what the student is pulled to
    kl, adaptive, divergences   how far apart two aligned distributions are
    pulls         the same over the full vocabulary with their gradients written out
    tiles, products, fused  those from hidden states, one tile of rows at a time
    estimators    the same from the written token alone
    skew          a skew of each text
    f_weights     the advantage that descends each divergence
    credit        advantages for policy gradients
    stabilizers   what bounds or reweights a signal
    metrics       sums and counts, divided once; quantiles keep the values
    diagnostics   what is measured on the text that is learned from
    clock         a share of the teacher that follows the loss
    ahead         what is taken over whole texts beforehand
    objective     the choices put together, checked
    loss          the objective of a batch, in chunks of rows
    kernels       what a process settles before it computes

Symbols: student p, teacher q, behaviour policy mu, reference ref. Shapes: R rows, V vocabulary, H hidden size, K top-k
columns, C candidate columns, S entries of a support. All log-probabilities are in nats.
"""
