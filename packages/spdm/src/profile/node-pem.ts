/** DER as the text that other tools read. */

/** A block of RFC 7468, lines of 64 characters; `label` is `CERTIFICATE`, `X509 CRL` or the like. */
export function pemBlock(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
