/** Mocha's short report for people, and the totals as JSON in the file that XOSAN_TEST_RESULTS names. */
const { writeFileSync } = require('node:fs')
const { reporters } = require('mocha')

module.exports = class extends reporters.Dot {
  constructor(runner, options) {
    super(runner, options)
    const pending = []
    runner.on('pending', test => pending.push(test.fullTitle()))
    runner.once('end', () => {
      const { passes, failures } = this.stats
      writeFileSync(process.env.XOSAN_TEST_RESULTS, JSON.stringify({ passes, failures, pending }))
    })
  }
}
