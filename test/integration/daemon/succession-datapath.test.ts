import assert from 'node:assert/strict'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { DaemonClient } from '../../../cli/daemon-client.ts'
import { closeVolume, createVolume, openVolume, type PoolHost } from '../../../cli/lab/pool.ts'
import { showVolume, waitUntilInSync } from '../../../cli/lab/volume-watch.ts'
import { certificatesIn } from '../../../trust/certificate.ts'
import { TrustDirectory } from '../../../trust/trust-directory.ts'
import { Load } from '../../faults/load/load-client.ts'
import { TestLab } from '../../support/test-lab.ts'

const MIB = 1024 * 1024
const PATIENCE_MS = 60_000

/** Real processes: what a guest notices of the change, and which keys the connections between hosts are made with then. */
describe('the datapath of hosts during a succession', function () {
  this.timeout(180_000)
  let lab: TestLab
  let load: Load | null = null
  before(async () => (lab = await TestLab.start(3, { tls: true })))
  after(async () => {
    await load?.dispose()
    await lab.dispose()
  })

  /** Looks again until something holds. */
  async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + PATIENCE_MS
    while (!(await holds())) {
      assert.ok(performance.now() < end, `still not: ${what}`)
      await delay(50)
    }
  }

  async function removed(by: PoolHost, host: PoolHost) {
    const daemon = new DaemonClient(by.controlSocket)
    try {
      return await daemon.call('host.remove', { host: host.uuid }, PATIENCE_MS)
    } finally {
      daemon.close()
    }
  }

  const authorities = async (host: PoolHost): Promise<string[]> => {
    const directory = await TrustDirectory.open(join(lab.labDirectory, host.name, 'state', 'trust'))
    return certificatesIn((await directory.credentials())!.authoritiesPem)
  }

  it('goes on with requests under way, and connects by the new authority alone', async () => {
    const [h1, h2, h3] = lab.hosts as readonly [PoolHost, PoolHost, PoolHost]
    const [old] = await authorities(h2)
    // The holder is lost before there is a volume, so that the volume's replicas are on the other two.
    await (await lab.control(h1)).kill()
    const volume = await createVolume(h2, lab.sr.sr, 'test', 16 * MIB)
    const guest = {
      journal: join(lab.directory, 'journal'),
      seed: 11,
      writes: 8,
      reads: 2,
      flushEvery: 50,
    }
    load = new Load({ ...guest, ...(await openVolume(h2, volume)) })
    await load.started()
    const acknowledged = async (): Promise<number> => (await load!.report()).writesAcknowledged
    const goesOn = async (): Promise<void> => {
      const enough = (await acknowledged()) + 200
      await until('writes are acknowledged', async () => (await acknowledged()) >= enough)
    }
    await goesOn()
    const successor = (await removed(h2, h1)).successor
    assert.equal(successor, h2.uuid)
    await goesOn()
    for (const host of [h2, h3]) {
      assert.equal((await authorities(host)).length, 1, `what ${host.name} trusts`)
      assert.ok(!(await authorities(host)).includes(old!))
    }

    // Connections that are made from here on: the replica's host comes back, and is brought up to date.
    await (await lab.control(h3)).kill('datapath-0')
    await (await lab.control(h3)).kill('datapath-1')
    await goesOn()
    await waitUntilInSync(h2, volume, PATIENCE_MS)
    await until('both replicas are connected', async () =>
      (await showVolume(h2, volume)).replicas.every(({ trouble }) => trouble === null)
    )
    const report = await load.stop()
    assert.deepEqual([report.errors, report.mismatches, report.connectionLost], [[], [], false])
    await load.dispose()

    // The other host has all that was acknowledged, and serves it.
    await closeVolume(h2, volume)
    load = new Load({ ...guest, ...(await openVolume(h3, volume)), checkOnly: true })
    const check = await load.ended()
    assert.deepEqual([check.errors, check.mismatchCount], [[], 0])
    assert.equal(check.bytesVerified, volume.size)
    await closeVolume(h3, volume)
  })
})
