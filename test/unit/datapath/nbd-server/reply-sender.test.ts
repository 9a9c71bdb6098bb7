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

  for (const structured of [true, false]) {
    const header = structured ? 28 : 16
    it(`puts data where they leave from, ${structured ? 'in chunks' : 'in simple replies'}, and what was not there costs nothing`, async () => {
      const stream = new PassThrough({ highWaterMark: 1 << 22 })
      let released = 0
      const sender = new ReplySender(stream as unknown as Socket, structured, cost => (released += cost))
      // More than a slab holds, so that the run goes on in another one.
      const replies = 100
      for (let index = 0; index < replies; index++) {
        const ticket = { cookieHigh: 1, cookieLow: index, cost: 1 }
        const send = (isThere: boolean) =>
          sender.dataAtOnce(ticket, 4096 * index, 4096, into => {
            into.fill(isThere ? index : 0xee)
            return isThere
          })
        assert.equal(send(false), false)
        assert.equal(send(true), true)
      }
      sender.flush()
      const bytes = stream.read() as Buffer
      assert.equal(bytes.length, replies * (header + 4096))
      for (let index = 0; index < replies; index++) {
        const at = index * (header + 4096)
        assert.equal(bytes.readUInt32BE(at), structured ? STRUCTURED_MAGIC : SIMPLE_MAGIC)
        assert.equal(bytes.readUInt32BE(at + 12), index, 'its cookie')
        if (structured) assert.equal(bytes.readBigUInt64BE(at + 20), BigInt(4096 * index))
        const data = bytes.subarray(at + header, at + header + 4096)
        assert.ok(
          data.every(byte => byte === index),
          `data of reply ${index}`
        )
      }
      await new Promise(resolve => setImmediate(resolve))
      assert.equal(released, replies)
    })
  }

  it('uses a place again only when what left from there has been taken', () => {
    const taken: (() => void)[] = []
    const sent: Uint8Array[] = []
    const socket = {
      cork: () => undefined,
      uncork: () => undefined,
      write: (bytes: Uint8Array, done?: () => void) => {
        sent.push(bytes)
        if (done !== undefined) taken.push(done)
      },
    }
    const sender = new ReplySender(socket as unknown as Socket, false, () => undefined)
    const send = (value: number) => {
      sender.dataAtOnce(
        { cookieHigh: 0, cookieLow: value, cost: 1 },
        0,
        65_536,
        into => into.fill(value).length > 0
      )
      sender.flush()
    }
    const holds = (index: number, value: number) => sent[index]!.subarray(16).every(byte => byte === value)
    for (let value = 0; value < 8; value++) send(value)
    for (let value = 0; value < 8; value++) assert.ok(holds(value, value), `batch ${value} is as it was sent`)
    // Others from the same place have not been taken yet.
    taken.shift()!()
    for (let value = 8; value < 12; value++) send(value)
    for (let value = 1; value < 12; value++)
      assert.ok(holds(value, value), `batch ${value} is as it was sent`)
    for (const done of taken.splice(0)) done()
    const places = new Set(sent.map(({ buffer }) => buffer))
    sent.splice(0)
    for (let value = 0; value < 8; value++) send(value)
    for (let value = 0; value < 8; value++)
      assert.ok(holds(value, value), `later batch ${value} is as it was sent`)
    assert.ok(
      sent.every(({ buffer }) => places.has(buffer)),
      'no new place was made'
    )
  })
})
