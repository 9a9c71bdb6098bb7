/** Says that it is there, and waits to be ended. */
process.send?.('here')
setInterval(() => undefined, 60_000)
process.once('disconnect', () => process.exit(0))
