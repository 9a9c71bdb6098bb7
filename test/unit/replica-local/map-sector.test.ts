import assert from 'node:assert/strict'
import fc from 'fast-check'
import {
  PAGE_PAYLOAD_BYTES,
  PAGE_SECTORS,
  decodeSector,
  encodeSectors,
  mapIdentity,
  uuidBytes,
} from '../../../datapath/replica-local/map-sector.ts'

const LAYER = '11111111-2222-4333-8444-555555555555'
const BOOT = uuidBytes('aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee')
const identity = mapIdentity('LIVE', LAYER, BOOT)
const bitsOf = (byte: number): Uint8Array => new Uint8Array(PAGE_PAYLOAD_BYTES).fill(byte)

describe('a sector of a map', () => {
  it('gives back the bits that were put in', () => {
    const bytes = fc.uint8Array({ minLength: PAGE_PAYLOAD_BYTES, maxLength: PAGE_PAYLOAD_BYTES })
    fc.assert(
      fc.property(bytes, fc.nat(2 ** 31), (bits, page) => {
        const encoded = encodeSectors(identity, bits, page, 0, PAGE_SECTORS)
        const decoded = bitsOf(1)
        for (let sector = 0; sector < PAGE_SECTORS; sector += 1) {
          assert.equal(decodeSector(identity, encoded, page, sector, decoded), 'valid')
        }
        assert.deepEqual(decoded, bits)
      })
    )
  })

  it('is known to be damaged whichever bit of it has flipped', () => {
    const encoded = encodeSectors(identity, bitsOf(0x5a), 3, 2, 3)
    const page = Buffer.alloc(4096)
    for (let bit = 0; bit < 512 * 8; bit += 1) {
      page.set(encoded, 1024)
      page[1024 + (bit >>> 3)]! ^= 1 << (bit & 7)
      const verdict = decodeSector(identity, page, 3, 2, bitsOf(0))
      // A flip in the boot id makes it another boot's, which is not believed either.
      assert.equal(verdict, bit >= 480 * 8 && bit < 496 * 8 ? 'other-boot' : 'damaged', `bit ${bit}`)
    }
  })

  it('is not taken for a sector of another place, layer or map', () => {
    const page = encodeSectors(identity, bitsOf(0x5a), 3, 0, PAGE_SECTORS)
    const other = '99999999-2222-4333-8444-555555555555'
    assert.equal(decodeSector(identity, page, 4, 0, bitsOf(0)), 'damaged')
    assert.equal(decodeSector(mapIdentity('LIVE', other, BOOT), page, 3, 0, bitsOf(0)), 'damaged')
    const sameBootOtherKind = { ...mapIdentity('PRES', LAYER, null), boot: BOOT }
    assert.equal(decodeSector(sameBootOtherKind, page, 3, 0, bitsOf(0)), 'damaged')
  })

  it('is ignored when another boot wrote it, damaged or not', () => {
    const page = encodeSectors(identity, bitsOf(0x5a), 0, 0, PAGE_SECTORS)
    const later = mapIdentity('LIVE', LAYER, uuidBytes('bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee'))
    const bits = bitsOf(7)
    assert.equal(decodeSector(later, page, 0, 0, bits), 'other-boot')
    page[10]! ^= 1
    assert.equal(decodeSector(later, page, 0, 0, bits), 'other-boot')
    assert.deepEqual(bits, bitsOf(7))
  })

  it('is empty when it is zeros', () => {
    const bits = bitsOf(0xff)
    assert.equal(decodeSector(identity, Buffer.alloc(4096), 0, 1, bits), 'empty')
    assert.ok(bits.subarray(480, 960).every(byte => byte === 0))
    assert.equal(bits[479], 0xff)
    assert.equal(bits[960], 0xff)
  })

  it('takes only UUIDs for ids', () => {
    for (const wrong of ['', 'x', LAYER.slice(1), LAYER.toUpperCase().replace('1', 'A'), `${LAYER}\n`]) {
      assert.throws(() => uuidBytes(wrong), RangeError)
    }
  })
})
