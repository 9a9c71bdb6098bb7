import assert from 'node:assert/strict'
import { DiskLanes, lanesPerStore } from '../../../../datapath/disk/disk-lanes.ts'

/** A call that ends when it is told to. */
class Call {
  begun = false
  end: () => void = () => undefined
  readonly done: Promise<void>

  constructor(lanes: DiskLanes) {
    this.done = lanes.run(async () => {
      this.begun = true
      await new Promise<void>(resolve => (this.end = resolve))
    })
  }
}

const settled = async (): Promise<void> => new Promise(resolve => setImmediate(resolve))

describe('the calls of one store', () => {
  it('never take all threads, whatever their number', () => {
    for (const threads of [2, 3, 4, 8, 11, 12, 16, 24, 64, 1024]) {
      const lanes = lanesPerStore(String(threads))
      assert.ok(lanes >= 1 && lanes < threads, `${lanes} of ${threads}`)
      if (threads >= 12) assert.ok(2 * lanes < threads, 'two stores leave some')
    }
  })

  it('reckon with what libuv makes of what it is told', () => {
    assert.equal(lanesPerStore(undefined), lanesPerStore('4'))
    assert.equal(lanesPerStore('100000'), lanesPerStore('1024'))
    assert.equal(lanesPerStore('many'), 1)
    assert.equal(lanesPerStore('1'), 1)
  })

  it('begin in the order in which they came, as soon as there is room', async () => {
    const lanes = new DiskLanes(2)
    const calls = Array.from({ length: 5 }, () => new Call(lanes))
    const begun = (): number[] => calls.flatMap((call, index) => (call.begun ? [index] : []))
    await settled()
    assert.deepEqual(begun(), [0, 1])
    calls[1]!.end()
    await settled()
    assert.deepEqual(begun(), [0, 1, 2])
    // The first one hangs; the others pass it by.
    for (const index of [2, 3, 4]) {
      calls[index]!.end()
      await calls[index]!.done
      await settled()
    }
    calls[0]!.end()
    await calls[0]!.done
    assert.deepEqual(begun(), [0, 1, 2, 3, 4])
  })

  it('give their room back when they fail', async () => {
    const lanes = new DiskLanes(1)
    await assert.rejects(
      lanes.run(async () => Promise.reject(new Error('EIO'))),
      /EIO/
    )
    assert.equal(await lanes.run(async () => Promise.resolve(7)), 7)
  })
})
