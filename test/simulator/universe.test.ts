import assert from 'node:assert/strict'
import { Universe } from './universe.ts'

/** Universes that every test run looks into; `npm run sim` looks into as many as one likes. */
const SEEDS = Number(process.env['XOSAN_SIM_SEEDS'] ?? 40)

async function logOf(seed: number): Promise<string> {
  const lines: string[] = []
  await new Universe(seed, line => lines.push(line)).run()
  return lines.join('\n')
}

describe('the simulator', () => {
  it('breaks no promise under faults', async function () {
    this.timeout(600_000)
    for (let seed = 1; seed <= SEEDS; seed++) {
      const report = await new Universe(seed).run()
      assert.deepEqual(report.problems, [], `npm run sim -- --seed ${seed} shows what happened`)
    }
  })

  it('writes the same log twice for one seed, and another for another', async function () {
    this.timeout(120_000)
    const [once, again, other] = [await logOf(7), await logOf(7), await logOf(8)]
    assert.equal(once, again)
    assert.notEqual(once, other)
  })
})
