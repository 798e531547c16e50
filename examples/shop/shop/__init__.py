"""A project of somebody else: orders, charges, mails and a nightly report, with arqonce."""
