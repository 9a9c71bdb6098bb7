import assert from 'node:assert/strict'
import fc from 'fast-check'
import { hasCode } from '../../../../core/errors.ts'
import { ByteQueue } from '../../../../core/nbd-wire/byte-queue.ts'
import {
  decodeClientFlags,
  decodeGreeting,
  encodeClientFlags,
  encodeGreeting,
} from '../../../../core/nbd-wire/greeting.ts'
import {
  decodeInfoReply,
  decodeMetaContextReply,
  decodeOptionReplyHeader,
  encodeBlockSizeInfo,
  encodeExportInfo,
  encodeMetaContextReply,
  encodeOptionReply,
} from '../../../../core/nbd-wire/option-reply.ts'
import {
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeOptionHeader,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
} from '../../../../core/nbd-wire/option-request.ts'
import {
  decodeReplyHeader,
  newReplyHeader,
  replyHeaderBytes,
} from '../../../../core/nbd-wire/reply-header.ts'
import { decodeRequest, encodeRequest, newRequestHeader } from '../../../../core/nbd-wire/request.ts'
import { encodeSimpleReply } from '../../../../core/nbd-wire/simple-reply.ts'
import {
  decodeBlockStatusPayload,
  decodeErrorPayload,
  encodeBlockStatusPayload,
  encodeChunkHeader,
  encodeErrorPayload,
} from '../../../../core/nbd-wire/structured-reply.ts'

const u16 = fc.integer({ min: 0, max: 0xffff })
const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
const natural = fc.maxSafeNat()
/** Text that survives UTF-8, up to the protocol's limit of length. */
const text = fc.string({ unit: 'grapheme', maxLength: 100 })

/** Runs a decoder on anything; it may only succeed or call it a violation. */
function neverWorse(decode: (bytes: Buffer) => unknown): (bytes: Uint8Array) => void {
  return bytes => {
    try {
      decode(Buffer.from(bytes))
    } catch (error) {
      assert.ok(hasCode(error, 'PROTOCOL_VIOLATION'), String(error))
    }
  }
}

describe('the NBD codec', () => {
  it('gives back a greeting and client flags', () => {
    fc.assert(fc.property(u16, flags => assert.equal(decodeGreeting(encodeGreeting(flags)), flags)))
    for (const flags of [0, 1, 2, 3]) {
      assert.deepEqual(decodeClientFlags(encodeClientFlags(flags)), { noZeroes: (flags & 2) !== 0 })
    }
    assert.throws(() => decodeClientFlags(encodeClientFlags(4)), /unknown client flags/)
  })

  it('gives back requests', () => {
    const request = fc.record(
      {
        flags: u16,
        command: u16,
        cookieHigh: u32,
        cookieLow: u32,
        offset: natural,
        length: u32,
      },
      { noNullPrototype: true }
    )
    fc.assert(
      fc.property(request, fc.nat(20), (header, at) => {
        const bytes = Buffer.alloc(at + 28)
        encodeRequest(bytes, at, header)
        const decoded = newRequestHeader()
        assert.ok(decodeRequest(bytes, at, decoded))
        assert.deepEqual(decoded, header)
        bytes[at] = 0
        assert.equal(decodeRequest(bytes, at, decoded), false)
      })
    )
  })

  it('keeps an offset beyond 2^53 beyond every size', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }), offset => {
        const bytes = Buffer.alloc(28)
        encodeRequest(bytes, 0, newRequestHeader())
        bytes.writeBigUInt64BE(offset, 16)
        const decoded = newRequestHeader()
        decodeRequest(bytes, 0, decoded)
        assert.ok(decoded.offset > Number.MAX_SAFE_INTEGER)
      })
    )
  })

  it('gives back both kinds of reply headers', () => {
    fc.assert(
      fc.property(u32, u32, u32, u16, u16, u32, (error, cookieHigh, cookieLow, flags, type, length) => {
        const bytes = Buffer.alloc(20)
        const header = newReplyHeader()
        encodeSimpleReply(bytes, 0, error, cookieHigh, cookieLow)
        assert.equal(replyHeaderBytes(bytes, 0), 16)
        decodeReplyHeader(bytes, 0, header)
        assert.deepEqual(header, {
          structured: false,
          cookieHigh,
          cookieLow,
          error,
          flags: 0,
          type: 0,
          length: 0,
        })
        encodeChunkHeader(bytes, 0, { flags, type, cookieHigh, cookieLow, length })
        assert.equal(replyHeaderBytes(bytes, 0), 20)
        decodeReplyHeader(bytes, 0, header)
        assert.deepEqual(header, { structured: true, cookieHigh, cookieLow, error: 0, flags, type, length })
      })
    )
  })

  it('gives back options, their data and their replies', () => {
    fc.assert(
      fc.property(u32, text, fc.array(u16), fc.array(text), u32, (option, name, wanted, queries, id) => {
        const info = encodeOption(option, encodeInfoRequest({ name, wanted }))
        assert.deepEqual(decodeOptionHeader(info), { option, length: info.length - 16 })
        assert.deepEqual(decodeInfoRequest(info.subarray(16)), { name, wanted })
        assert.deepEqual(decodeMetaContextRequest(encodeMetaContextRequest({ name, queries })), {
          name,
          queries,
        })
        const reply = encodeMetaContextReply(option, id, name)
        assert.deepEqual(decodeOptionReplyHeader(reply), { option, type: 4, length: reply.length - 20 })
        assert.deepEqual(decodeMetaContextReply(reply.subarray(20)), { id, context: name })
      })
    )
  })

  it('gives back what a server tells about an export', () => {
    fc.assert(
      fc.property(natural, u16, u32, u32, u32, (size, flags, minimum, preferred, maximum) => {
        const told = decodeInfoReply(encodeExportInfo(7, { size, flags }).subarray(20))
        assert.deepEqual(told, { kind: 'export', size, flags })
        const sizes = { minimum, preferred, maximum }
        const blocks = decodeInfoReply(encodeBlockSizeInfo(7, sizes).subarray(20))
        assert.deepEqual(blocks, { kind: 'block-size', ...sizes })
      })
    )
    assert.equal(decodeInfoReply(encodeOptionReply(7, 3, Buffer.from([0, 99])).subarray(20)).kind, 'other')
  })

  it('gives back errors and extents', () => {
    const extent = fc.record(
      {
        length: fc.integer({ min: 1, max: 0xffff_ffff }),
        hole: fc.boolean(),
        zero: fc.boolean(),
      },
      { noNullPrototype: true }
    )
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        text,
        u32,
        fc.array(extent, { minLength: 1 }),
        (error, message, contextId, extents) => {
          assert.deepEqual(decodeErrorPayload(encodeErrorPayload(error, message)), { error, message })
          const status = decodeBlockStatusPayload(encodeBlockStatusPayload(contextId, extents))
          assert.deepEqual(status, { contextId, extents })
        }
      )
    )
    assert.equal(decodeErrorPayload(encodeErrorPayload(5, 'x'.repeat(10_000))).message.length, 4096)
  })

  it('meets any bytes with a result or a violation, never with anything else', () => {
    const decoders = [
      decodeInfoRequest,
      decodeMetaContextRequest,
      decodeInfoReply,
      decodeMetaContextReply,
      decodeErrorPayload,
      decodeBlockStatusPayload,
    ]
    for (const decode of decoders) {
      fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), neverWorse(decode)), { numRuns: 500 })
    }
  })

  it('refuses counts that promise more than the bytes can hold before it makes room for them', () => {
    const data = Buffer.alloc(8)
    data.writeUInt32BE(0xffff_ffff, 4)
    assert.throws(() => decodeMetaContextRequest(data), /shorter than its own lengths/)
  })
})

describe('the byte queue', () => {
  it('gives bytes out in the order in which they came, whatever the chunks and the way they are taken', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('push' as const), count: fc.nat(40) }),
      fc.record({
        kind: fc.constantFrom('take' as const, 'skip' as const, 'drain' as const, 'peek' as const),
        count: fc.nat(60),
      })
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), steps => {
        const queue = new ByteQueue()
        let pushed = 0
        let taken = 0
        const expectBytes = (bytes: Uint8Array): void => {
          bytes.forEach((byte, index) => assert.equal(byte, (taken + index) & 0xff))
        }
        for (const { kind, count } of steps) {
          const there = Math.min(count, pushed - taken)
          if (kind === 'push') {
            queue.push(Buffer.from(Array.from({ length: count }, () => pushed++ & 0xff)))
          } else if (kind === 'take') {
            expectBytes(queue.take(there))
            taken += there
          } else if (kind === 'skip') {
            queue.skip(there)
            taken += there
          } else if (kind === 'drain') {
            const into = new Uint8Array(count + 3)
            assert.equal(queue.drain(into, 3), there)
            expectBytes(into.subarray(3, 3 + there))
            taken += there
          } else {
            assert.equal(queue.contiguous(count), count <= pushed - taken)
            if (count <= pushed - taken)
              expectBytes(queue.head.subarray(queue.position, queue.position + count))
          }
          assert.equal(queue.length, pushed - taken)
        }
      }),
      { numRuns: 500 }
    )
  })

  it('takes a message that lies in one chunk without copying it', () => {
    const queue = new ByteQueue()
    const chunk = Buffer.from('abcdef')
    queue.push(chunk)
    queue.skip(1)
    const taken = queue.take(3)
    assert.equal(taken.buffer, chunk.buffer)
    assert.equal(taken.toString(), 'bcd')
  })
})
