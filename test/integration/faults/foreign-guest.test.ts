import assert from 'node:assert/strict'
import { join } from 'node:path'
import { findProgram } from '../../../cli/lab/find-program.ts'
import { type ByteOffset } from '../../../core/units.ts'
import { PassThroughDevice } from '../../../datapath/filters/pass-through.ts'
import { ForeignGuest } from '../../faults/soak/foreign-guest.ts'
import { FOREIGN_PROGRAMS } from '../../faults/soak/foreign-tools.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { NbdRig } from '../../support/nbd-rig.ts'

const SIZE = 16 * 1024 * 1024

/** A disk that turns a bit of what it reads from a time on. */
class RottenDevice extends PassThroughDevice {
  rotten = false

  override async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    const read = await this.next.read(offset, into)
    if (this.rotten) read[0]! ^= 1
    return read
  }
}

const missing = Object.keys(FOREIGN_PROGRAMS).filter(program => findProgram(program) === null)
const suite = missing.length === 0 ? describe : describe.skip

suite('a guest of foreign tools', function () {
  this.timeout(120_000)
  let device: RottenDevice
  let rig: NbdRig
  let guest: ForeignGuest

  beforeEach(async () => {
    device = new RottenDevice(new MemoryDevice(SIZE))
    rig = await NbdRig.start({ device })
    guest = new ForeignGuest(SIZE, join(rig.directory, 'copy'), 5)
  })
  afterEach(async () => {
    await guest.kill()
    await rig.stop()
  })

  const address = (): { socket: string; exportName: string } => ({ socket: rig.path, exportName: 'volume' })

  it('works with each of its tools, and finds nothing wrong with a disk that is right', async () => {
    await guest.begin(address())
    for (let run = 0; run < 8; run++) await guest.progress(60_000)
    await guest.stop()
    await guest.checkAll(address())
    assert.deepEqual(guest.takeFaults(), [])
    assert.ok(guest.work.writes > 0 && guest.work.bytesVerified > 0)
  })

  it('goes on after its connection was lost, and forgets what it does not know', async () => {
    await guest.begin(address())
    await guest.progress(60_000)
    guest.doomed()
    await guest.kill()
    await guest.begin(address())
    for (let run = 0; run < 3; run++) await guest.progress(60_000)
    await guest.stop()
    assert.deepEqual(guest.takeFaults(), [])
  })

  it('finds a bit that has turned', async () => {
    await guest.begin(address())
    for (let run = 0; run < 3; run++) await guest.progress(60_000)
    await guest.stop()
    assert.deepEqual(guest.takeFaults(), [])
    device.rotten = true
    await guest.checkAll(address())
    assert.ok(guest.takeFaults().length > 0)
  })
})
