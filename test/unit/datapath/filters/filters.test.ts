import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { hasCode } from '../../../../core/errors.ts'
import { byteLength, byteOffset, type ByteOffset } from '../../../../core/units.ts'
import { BoundsFilter } from '../../../../datapath/filters/bounds/bounds.ts'
import { ThrottleFilter } from '../../../../datapath/filters/throttle/throttle.ts'
import { type DeviceCall, MemoryDevice } from '../../../support/memory-device.ts'

const MIB = 1024 * 1024

describe('the bounds filter', () => {
  it('refuses what is not wholly inside before the device below sees it', async () => {
    const calls: DeviceCall[] = []
    const filter = new BoundsFilter(new MemoryDevice(MIB, { before: call => void calls.push(call) }))
    const nowhere = [MIB - 1, MIB + 1, -1, 0.5, Number.NaN, 2 ** 60].map(offset => offset as ByteOffset)
    for (const offset of nowhere) {
      const data = new Uint8Array(2)
      const length = byteLength(2)
      const attempts = [
        filter.read(offset, data),
        filter.write({ offset, data, durable: false }),
        filter.zero({ offset, length, durable: false, keepAllocated: false }),
        filter.trim({ offset, length, durable: false }),
        filter.allocation(offset, length),
      ]
      for (const attempt of attempts) await assert.rejects(attempt, error => hasCode(error, 'OUT_OF_RANGE'))
    }
    assert.deepEqual(calls, [])
  })
})

describe('the throttle filter', () => {
  /** A device whose calls end when the test says so. */
  function gated(): { device: MemoryDevice; started: DeviceCall[]; finish: () => Promise<void> } {
    const started: DeviceCall[] = []
    const gates: (() => void)[] = []
    const device = new MemoryDevice(MIB, {
      before: call => {
        started.push(call)
        return new Promise(resolve => gates.push(resolve))
      },
    })
    const finish = async (): Promise<void> => {
      gates.shift()!()
      await turn()
    }
    return { device, started, finish }
  }

  it('lets calls wait in order while the bound is reached, and starts them as room comes back', async () => {
    const { device, started, finish } = gated()
    const filter = new ThrottleFilter(device, byteLength(1000))
    const write = (offset: number, length: number): Promise<void> =>
      filter.write({ offset: byteOffset(offset), data: new Uint8Array(length), durable: false })
    const all = [write(0, 600), write(1, 600), write(2, 100), filter.flush()]
    await turn()
    assert.deepEqual(
      started.map(call => call.offset),
      [0],
      'the second does not fit, and nothing overtakes it'
    )
    assert.equal(filter.waiting, 3)
    await finish()
    assert.deepEqual(
      started.map(call => call.kind),
      ['write', 'write', 'write', 'flush']
    )
    for (let count = 0; count < 3; count++) await finish()
    await Promise.all(all)
    assert.equal(filter.waiting, 0)
  })

  it('runs a call that is larger than the bound when nothing else runs', async () => {
    const { device, started, finish } = gated()
    const filter = new ThrottleFilter(device, byteLength(10))
    const large = filter.read(byteOffset(0), new Uint8Array(5000))
    const small = filter.read(byteOffset(0), new Uint8Array(5))
    await turn()
    assert.equal(started.length, 1)
    await finish()
    await large
    assert.equal(started.length, 2)
    await finish()
    await small
  })

  it('gives room back when the device below fails', async () => {
    const device = new MemoryDevice(MIB, {
      before: () => {
        throw new Error('the disk is on fire')
      },
    })
    const filter = new ThrottleFilter(device, byteLength(10))
    for (let count = 0; count < 3; count++) {
      await assert.rejects(filter.read(byteOffset(0), new Uint8Array(10)), /on fire/)
    }
    assert.equal(filter.waiting, 0)
  })
})
