import assert from 'node:assert/strict'
import { type Socket } from 'node:net'
import { byteLength } from '../../../../core/units.ts'
import { ReadBuffers } from '../../../../datapath/nbd-server/read-buffers.ts'
import { ReplySender } from '../../../../datapath/nbd-server/reply-sender.ts'

const MIB = 1024 * 1024

describe('the buffers of reads', () => {
  it('are as long as asked for, and used again when they were given back', () => {
    const buffers = new ReadBuffers()
    for (const length of [1, 4096, 65_535, 65_536, 65_537, 100_000, MIB, MIB + 1, 32 * MIB]) {
      const first = buffers.take(length)
      assert.equal(first.length, length)
      buffers.giveBack(first)
    }
    const one = buffers.take(MIB - 4096)
    const other = buffers.take(MIB - 4096)
    assert.notEqual(one.buffer, other.buffer)
    buffers.giveBack(one)
    const again = buffers.take(MIB)
    assert.equal(again.buffer, one.buffer)
    assert.equal(again.length, MIB)
    assert.notEqual(buffers.take(MIB).buffer, one.buffer)
  })

  it('are not kept without a limit', () => {
    const buffers = new ReadBuffers()
    const taken = Array.from({ length: 40 }, () => buffers.take(MIB))
    for (const buffer of taken) buffers.giveBack(buffer)
    const known = new Set(taken.map(({ buffer }) => buffer))
    const again = Array.from({ length: 40 }, () => buffers.take(MIB))
    assert.equal(again.filter(({ buffer }) => known.has(buffer)).length, 16)
  })

  it('are never a part of what others use', () => {
    const buffers = new ReadBuffers()
    const shared = Buffer.alloc(2 * MIB)
    buffers.giveBack(shared.subarray(0, MIB))
    buffers.giveBack(shared.subarray(MIB))
    buffers.giveBack(Buffer.from('a small one out of a pool'))
    assert.notEqual(buffers.take(MIB).buffer, shared.buffer)
  })

  it('come back when the system has taken the reply, and not before', () => {
    const taken: (() => void)[] = []
    const socket = {
      cork: () => undefined,
      uncork: () => undefined,
      write: (_: Uint8Array, done?: () => void) => {
        if (done !== undefined) taken.push(done)
      },
    }
    const sender = new ReplySender(socket as unknown as Socket, true, () => undefined)
    let back = 0
    for (let reply = 0; reply < 2; reply++) {
      sender.data(
        { cookieHigh: 0, cookieLow: reply, cost: 0 },
        0,
        new Uint8Array(byteLength(8)),
        () => back++
      )
      sender.flush()
    }
    assert.equal(back, 0)
    taken[0]!()
    assert.equal(back, 1)
    taken[1]!()
    assert.equal(back, 2)
  })
})
