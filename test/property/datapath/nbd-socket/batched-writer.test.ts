import assert from 'node:assert/strict'
import { type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { BatchedWriter } from '../../../../datapath/nbd-socket/batched-writer.ts'

describe('the batched writer', () => {
  it('writes headers and data in their order, across slabs and batches, and gives all costs back', async () => {
    const message = fc.record({
      headers: fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 4, size: 'max' }),
      data: fc.option(fc.uint8Array({ minLength: 1, maxLength: 300 })),
      cost: fc.nat(1000),
      flush: fc.integer({ min: 0, max: 20 }).map(chance => chance === 0),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 80, size: 'max' }), async messages => {
        const stream = new PassThrough({ highWaterMark: 64 * 1024 * 1024 })
        let costs = 0
        let count = 0
        let settled: () => void = () => undefined
        const writer = new BatchedWriter(stream as unknown as Socket, (cost, written) => {
          costs += cost
          count += written
          if (count === messages.length) settled()
        })
        const expected: Uint8Array[] = []
        let mark = 0
        for (const { headers, data, cost, flush } of messages) {
          for (const length of headers) {
            const at = writer.reserve(length)
            writer.slab.fill(++mark & 0xff, at, at + length)
            expected.push(new Uint8Array(length).fill(mark & 0xff))
          }
          if (data !== null) {
            writer.append(data)
            expected.push(data)
          }
          writer.message(cost)
          if (flush) writer.flush()
        }
        if (count < messages.length) await new Promise<void>(resolve => (settled = resolve))
        const wanted = Buffer.concat(expected)
        assert.equal(Buffer.compare(stream.read() as Buffer, wanted), 0)
        assert.equal(
          costs,
          messages.reduce((sum, { cost }) => sum + cost, 0)
        )
      }),
      { numRuns: 60 }
    )
  })

  it('gives costs back when the socket is gone', () => {
    const stream = new PassThrough()
    let costs = 0
    const writer = new BatchedWriter(stream as unknown as Socket, cost => (costs += cost))
    stream.destroy()
    writer.reserve(16)
    writer.message(7)
    writer.flush()
    assert.equal(costs, 7)
  })
})
