/** A program that says that it runs and waits to be killed. */
process.stdout.write('runs\n');
setTimeout(() => process.exit(0), 60_000);
