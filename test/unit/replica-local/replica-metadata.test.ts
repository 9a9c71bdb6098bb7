import assert from 'node:assert/strict'
import { byteOffset, type Epoch } from '../../../core/units.ts'
import { LocalReplica } from '../../../datapath/replica-local/local-replica.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'

const SLOT_BYTES = 65_536

/** A host whose replica has accepted epoch 1 and then 2, and is closed. */
async function closedHost(): Promise<ReplicaHost> {
  const host = new ReplicaHost(1, 2 * 1024 * 1024)
  await host.start()
  await host.replica.acceptEpoch(2 as Epoch, { rebuilding: true })
  await host.replica.close()
  return host
}

const metadataPath = (host: ReplicaHost): string => `volumes/${host.spec.volume}/replica`

async function overwrite(host: ReplicaHost, path: string, position: number, text: string): Promise<void> {
  const file = await host.mount.open(path, false)
  await file.write(Buffer.from(text), byteOffset(position))
  await file.close()
}

describe('the metadata of a replica', () => {
  it('keep the last accepted epoch when either of their copies is damaged', async () => {
    for (const slot of [0, 1]) {
      const host = await closedHost()
      host.disk.damage(metadataPath(host), slot * SLOT_BYTES + 100)
      const replica = await host.open()
      assert.equal(replica.acceptedEpoch, 2)
      assert.equal(replica.state, 'rebuilding')
    }
  })

  it('are repaired when they are opened, so that later damage to the other copy does no harm', async () => {
    const host = await closedHost()
    host.disk.damage(metadataPath(host), 20)
    await (await host.open()).close()
    host.disk.damage(metadataPath(host), SLOT_BYTES + 20)
    assert.equal((await host.open()).acceptedEpoch, 2)
  })

  it('are reported as damaged when both copies are', async () => {
    const host = await closedHost()
    host.disk.damage(metadataPath(host), 100)
    host.disk.damage(metadataPath(host), SLOT_BYTES + 100)
    await assert.rejects(host.open(), { code: 'REPLICA_CORRUPT' })
  })

  it('are damaged, and not of another version, when it is the version that has other bits', async () => {
    const host = await closedHost()
    // What was a 1 says 0, of which there never was a version.
    const place = 'xosan-replica '.length
    host.disk.damage(metadataPath(host), place)
    assert.equal((await host.open()).acceptedEpoch, 2)
    await host.replica.close()
    for (const slot of [0, 1]) host.disk.damage(metadataPath(host), slot * SLOT_BYTES + place)
    await assert.rejects(host.open(), { code: 'REPLICA_CORRUPT' })
  })

  it('of a newer version are left alone', async () => {
    const host = await closedHost()
    await overwrite(host, metadataPath(host), 0, 'xosan-replica 2 ')
    await overwrite(host, metadataPath(host), SLOT_BYTES, 'xosan-replica 2 ')
    const before = host.disk.contentOf(metadataPath(host))
    await assert.rejects(host.open(), { code: 'UNSUPPORTED' })
    assert.deepEqual(host.disk.contentOf(metadataPath(host)), before)
  })

  it('never go back to an epoch that a later one has superseded, wherever the power is cut', async () => {
    for (let call = 1; ; call += 1) {
      const host = await closedHost()
      const replica = await host.open()
      let calls = 0
      host.disk.fault = () => {
        calls += 1
        if (calls === call) {
          host.powerCut()
          throw new Error('the power is cut')
        }
      }
      let accepted = 2
      const accept = replica.acceptEpoch(3 as Epoch, { rebuilding: false }).then(() => {
        accepted = 3
      })
      // A call that the power cut interrupts never answers.
      await Promise.race([accept.catch(() => undefined), new Promise(resolve => setImmediate(resolve))])
      host.disk.fault = undefined
      if (calls < call) {
        assert.equal(accepted, 3)
        assert.ok(call > 4, 'two writes and two syncs, each with a power cut')
        return
      }
      const found = (await host.open()).acceptedEpoch
      assert.ok(found >= accepted && found <= 3, `epoch ${found} after ${accepted} was acknowledged`)
    }
  })

  it('say that a replica is gone when a file of it is missing, or another replica`s', async () => {
    for (const suffix of ['.raw', '.map', '.live'] as const) {
      const host = await closedHost()
      await host.mount.remove(host.path(suffix))
      await assert.rejects(host.open(), { code: 'REPLICA_GONE' })
    }
    const host = await closedHost()
    const other = new ReplicaHost(2, 2 * 1024 * 1024)
    await LocalReplica.create(host.mount, { ...other.spec, layers: host.spec.layers })
    const directory = `volumes/${host.spec.volume}`
    const foreign = `volumes/${other.spec.volume}/${host.spec.layers[0]!}.map`
    const content = host.disk.contentOf(foreign)
    const file = await host.mount.open(`${directory}/${host.spec.layers[0]!}.map`, false)
    await file.write(content, byteOffset(0))
    await file.close()
    await assert.rejects(host.open(), { code: 'REPLICA_GONE' })
  })

  it('and maps that are shorter than they should be, or damaged, are reported', async () => {
    const damages: ((host: ReplicaHost) => void | Promise<void>)[] = [
      host => host.disk.damage(host.path('.map'), 30),
      host => host.disk.damage(host.path('.live'), 200),
      async host => {
        const file = await host.mount.open(host.path('.raw'), false)
        await file.resize(4096 as never)
        await file.close()
      },
    ]
    for (const damage of damages) {
      const host = await closedHost()
      await damage(host)
      await assert.rejects(host.open(), { code: 'REPLICA_CORRUPT' })
    }
  })
})
