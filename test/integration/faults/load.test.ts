import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { handleOf } from '../../../daemon/supervision/process-handle.ts'
import { byteLength, type ByteOffset } from '../../../core/units.ts'
import { type WriteRequest } from '../../../datapath/block-device.ts'
import { PassThroughDevice } from '../../../datapath/filters/pass-through.ts'
import { Load } from '../../faults/load/load-client.ts'
import { type LoadOptions, type LoadReport } from '../../faults/load/load-protocol.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { NbdRig } from '../../support/nbd-rig.ts'

const SIZE = 4 * 1024 * 1024

/** A disk that acknowledges every so many-th write and forgets it. */
class ForgetfulDevice extends PassThroughDevice {
  #writes = 0

  override async write(request: WriteRequest): Promise<void> {
    this.#writes += 1
    if (this.#writes % 200 !== 0) await this.next.write(request)
  }
}

/** A disk that now and then answers a read with what was there before the last write to the same place. */
class BackwardsDevice extends PassThroughDevice {
  #reads = 0
  readonly #before = new MemoryDevice(SIZE)

  override async write(request: WriteRequest): Promise<void> {
    const old = new Uint8Array(request.data.length)
    await this.next.read(request.offset, old)
    await this.#before.write({ ...request, data: old })
    await this.next.write(request)
  }

  override async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    this.#reads += 1
    return (this.#reads % 50 === 0 ? this.#before : this.next).read(offset, into)
  }
}

describe('the load of the kill matrix', function () {
  this.timeout(60_000)
  let rig: NbdRig
  let load: Load | null = null

  const options = (): LoadOptions => ({
    socket: rig.path,
    exportName: 'volume',
    journal: join(rig.directory, 'journal'),
    seed: 7,
    writes: 32,
    reads: 4,
    flushEvery: 0,
  })

  async function runUntil(
    device: ConstructorParameters<typeof PassThroughDevice>[0],
    enough: (report: LoadReport) => boolean
  ): Promise<LoadReport> {
    rig = await NbdRig.start({ device })
    load = new Load(options())
    await load.started()
    const end = performance.now() + 30_000
    while (!enough(await load.report())) assert.ok(performance.now() < end, 'the load does not come on')
    return await load.stop()
  }

  afterEach(async () => {
    await load?.dispose()
    await rig.stop()
  })

  it('finds nothing wrong with a disk that is right, overlaps itself, and notes every acknowledgement durably', async () => {
    const report = await runUntil(
      new MemoryDevice(SIZE),
      ({ writesAcknowledged }) => writesAcknowledged > 2000
    )
    assert.deepEqual(report.mismatches, [])
    assert.deepEqual(report.errors, [])
    assert.equal(report.connectionLost, false)
    assert.ok(report.writesOverlapping > 500, `${report.writesOverlapping} overlapping writes`)
    assert.equal(report.acknowledgementsDurable, report.writesAcknowledged)
    assert.equal(report.writesAcknowledged, report.writesIssued)

    const check = new Load({ ...options(), checkOnly: true })
    load = check
    const { bytesVerified, mismatchCount } = await check.ended()
    assert.deepEqual([bytesVerified, mismatchCount], [SIZE, 0])
  })

  it('notices an acknowledged write that was forgotten', async () => {
    const { mismatchCount } = await runUntil(
      new ForgetfulDevice(new MemoryDevice(SIZE)),
      report => report.mismatchCount > 0 || report.writesAcknowledged > 20_000
    )
    assert.ok(mismatchCount > 0)
  })

  it('notices a read that goes back in time', async () => {
    const { mismatchCount } = await runUntil(
      new BackwardsDevice(new MemoryDevice(SIZE)),
      report => report.mismatchCount > 0 || report.writesAcknowledged > 20_000
    )
    assert.ok(mismatchCount > 0)
  })

  it('notices, from the journal alone, a disk that comes back older than what was acknowledged', async () => {
    const device = new MemoryDevice(SIZE)
    await runUntil(device, ({ writesAcknowledged }) => writesAcknowledged > 500)
    await device.write({
      offset: 0 as ByteOffset,
      data: new Uint8Array(64 * 1024),
      durable: true,
    })
    load = new Load({ ...options(), checkOnly: true })
    const { mismatchCount } = await load.ended()
    assert.ok(mismatchCount > 50, `${mismatchCount} sectors`)
    assert.equal(device.size, byteLength(SIZE))
  })

  it('kills only when enough writes are in flight, and knows how many were', async () => {
    rig = await NbdRig.start({ device: new MemoryDevice(SIZE) })
    load = new Load(options())
    await load.started()
    const victim = fork(join(import.meta.dirname, '..', '..', 'support', 'idle-program.ts'), {
      execArgv: ['--import', 'tsx'],
    })
    await once(victim, 'message')
    const exit = once(victim, 'exit')
    const inFlight = await load.signal('SIGKILL', [handleOf(victim.pid!)!], 16)
    assert.ok(inFlight >= 16 && inFlight <= 32, `${inFlight} in flight`)
    assert.equal((await exit)[1], 'SIGKILL')
  })

  it('reports a lost connection with what was in flight', async () => {
    rig = await NbdRig.start({ device: new MemoryDevice(SIZE) })
    load = new Load(options())
    await load.started()
    const ended = load.ended()
    await rig.server.close()
    const report = await ended
    assert.equal(report.connectionLost, true)
    assert.deepEqual(report.errors, [])
  })
})
