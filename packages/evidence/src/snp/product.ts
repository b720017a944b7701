/** EPYC products whose guests attest themselves, and AMD's root keys for them. AMD 57230; AMD PPRs for CPUID. */
import type { TrustedRoot } from '../x509/chain.ts';

export const SNP_PRODUCTS = ['Milan', 'Genoa', 'Turin'] as const;
/** As AMD's key service names them: Bergamo and Siena have Genoa's keys. */
export type SnpProduct = (typeof SNP_PRODUCTS)[number];

/** SHA-384 of the SubjectPublicKeyInfo of AMD's ARK certificates. */
export const AMD_ROOTS: readonly (TrustedRoot & { readonly name: `ARK-${SnpProduct}` })[] = [
  {
    name: 'ARK-Milan',
    spki: '1249f67f15cf229a4069195e1a9ce537d1765ef706a1f4a123c36be9518786515d25ecc007f366b564d2b3f31c48082e',
  },
  {
    name: 'ARK-Genoa',
    spki: '32ab53a6ce5ec14926207396e5c475ae768a6a9831b7e860b5acf2e1c1dff222bc5a8bfc43eb5e06393189c1f246d880',
  },
  {
    name: 'ARK-Turin',
    spki: '3475f08a9727f8ac9a1deaea5f2a2097aa59d64d05c2a678c229c873e6359d3a6926287a2a22cd5f88a385e333a2fcc5',
  },
];

/** From the report's CPUID fields (version 3 and later); null for a processor that this list does not know. */
export function productOfCpu(family: number, model: number): SnpProduct | null {
  if (family === 0x19 && model <= 0x0f) return 'Milan';
  if (family === 0x19 && ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf))) return 'Genoa';
  if (family === 0x1a && model <= 0x1f) return 'Turin';
  return null;
}

/** The name that people know the processor by. */
export function processorName(family: number, model: number): string {
  if (family === 0x19 && model >= 0xa0 && model <= 0xaf) return 'Bergamo or Siena';
  return productOfCpu(family, model) ?? `family ${family}, model ${model}`;
}

/** A certificate's productName is `Milan-B0`, `Genoa-B1`, `Turin`. */
export function productOfName(name: string): SnpProduct | null {
  return SNP_PRODUCTS.find((product) => name === product || name.startsWith(`${product}-`)) ?? null;
}
