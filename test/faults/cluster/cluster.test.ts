/** The short form of `npm run cluster-matrix` and `npm run coordinator-matrix`; says so when it cannot run here. */
import assert from 'node:assert/strict'
import { findProgram } from '../../../cli/lab/find-program.ts'
import { TestLab } from '../../support/test-lab.ts'
import { COORDINATOR_CASES, runCase } from './coordinator-cases.ts'
import { runFault } from './fault-round.ts'
import { HOST_FAULTS } from './host-faults.ts'

const missing =
  process.geteuid?.() !== 0
    ? 'needs root'
    : ['ip', 'tc', 'nsenter', 'etcd']
        .filter(name => findProgram(name) === null)
        .map(name => `${name} not installed`)
        .join(', ')

if (missing === '') describe('a cluster of hosts with networks of their own', theCluster)
else describe.skip(`a cluster of hosts [skipped: ${missing}]`, () => it('moves a volume'))

function theCluster(this: Mocha.Suite): void {
  this.timeout(400_000)
  let lab: TestLab

  before(async () => {
    lab = await TestLab.start(3, { netns: true, coordinator: 'etcd' })
  })
  after(() => lab.dispose())

  it('serves a volume elsewhere when its host is cut off, where its guest is told nothing more', async () => {
    const cut = HOST_FAULTS.find(({ name }) => name === 'cut')!
    const { faults, held, servedElsewhereMs } = await runFault(lab, cut, 'primary', 0)
    assert.deepEqual(faults, [])
    assert.equal(held, true)
    assert.notEqual(servedElsewhereMs, null)
  })

  it('holds I/O when a replica is lost while all members of etcd are away, and goes on when they are back', async () => {
    const held = COORDINATOR_CASES.find(({ name }) => name === 'all stopped, secondary killed')!
    const { faults, heldMs, wentOnMs } = await runCase(lab, held, 1)
    assert.deepEqual(faults, [])
    assert.ok(heldMs !== null && wentOnMs !== null)
  })
}
