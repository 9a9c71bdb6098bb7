/**
 * Names of the browser's cryptography that the declarations of @peculiar/x509 use, given Node's own meaning. The
 * browser's own declarations (`lib: ["DOM"]`) would let code use much that Node does not have.
 */
import { type webcrypto } from 'node:crypto'

declare global {
  type Crypto = webcrypto.Crypto
  type CryptoKey = webcrypto.CryptoKey
  type CryptoKeyPair = webcrypto.CryptoKeyPair
  type SubtleCrypto = webcrypto.SubtleCrypto
  type KeyUsage = webcrypto.KeyUsage
  type Algorithm = webcrypto.Algorithm
  type EcKeyGenParams = webcrypto.EcKeyGenParams
  type EcKeyImportParams = webcrypto.EcKeyImportParams
  type EcdsaParams = webcrypto.EcdsaParams
  type RsaHashedImportParams = webcrypto.RsaHashedImportParams
  type BufferSource = ArrayBufferView | ArrayBuffer
}
