/**
 * The library for certificates, on Node's own cryptography, and the one algorithm that XOSAN uses with it. Its
 * dependency injection wants `reflect-metadata` to be there first, so everybody imports it from here.
 */
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

x509.cryptoProvider.set(webcrypto)

export { x509 }

/** ECDSA on P-256 with SHA-256: what Node, Go and GnuTLS of all ages take. */
export const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

/** Where every certificate begins: a host whose clock lost its battery must still reach its storage. */
export const VALID_FROM = new Date('2000-01-01T00:00:00Z')

/** Larger than any request or certificate of ours by far; checked before anything is taken apart. */
export const DER_BYTES_MAX = 8192

export const newKeyPair = async (): Promise<CryptoKeyPair> =>
  webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])

/** A private key as PKCS #8 in PEM. */
export async function privateKeyPem(key: CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key)
  return `${x509.PemConverter.encode(der, 'PRIVATE KEY')}\n`
}

/** Reads what `privateKeyPem` wrote. @throws Error that says nothing of the key itself */
export async function signingKey(pem: string): Promise<CryptoKey> {
  const [der] = x509.PemConverter.decode(pem)
  if (der === undefined) throw new Error('it holds no key')
  return webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign'])
}
