import assert from 'node:assert/strict'
import { type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { ReplySender } from '../../../../datapath/nbd-server/reply-sender.ts'

/** NBD's protocol document, "Structured reply message" and "Simple reply message". */
const STRUCTURED_MAGIC = 0x668e33ef
const SIMPLE_MAGIC = 0x67446698

describe('the sender of NBD replies', () => {
  it('writes each offset behind its own header, also where a slab of headers ends between the two', () => {
    const stream = new PassThrough({ highWaterMark: 1 << 20 })
    const sender = new ReplySender(stream as unknown as Socket, true, () => undefined)
    // 1,019 simple replies of 16 bytes and two data headers of 28 leave room for a header of 20 but not for its offset
    // in a slab of 16 KiB.
    for (let cookie = 0; cookie < 1019; cookie++)
      sender.success({ cookieHigh: 0, cookieLow: cookie, cost: 0 })
    for (let index = 0; index < 3; index++) {
      sender.data(
        { cookieHigh: 1, cookieLow: index, cost: 0 },
        4096 * (index + 1),
        new Uint8Array(1).fill(index)
      )
    }
    sender.flush()
    const bytes = stream.read() as Buffer
    for (let cookie = 0; cookie < 1019; cookie++) {
      assert.equal(bytes.readUInt32BE(cookie * 16), SIMPLE_MAGIC, `reply ${cookie}`)
    }
    let at = 1019 * 16
    for (let index = 0; index < 3; index++) {
      assert.equal(bytes.readUInt32BE(at), STRUCTURED_MAGIC)
      assert.equal(bytes.readBigUInt64BE(at + 20), BigInt(4096 * (index + 1)), `offset of reply ${index}`)
      assert.equal(bytes[at + 28], index)
      at += 29
    }
    assert.equal(at, bytes.length)
  })
})
