//! Databases on a cluster: making them, and filling them with a product's tables.

use std::fmt;

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

use crate::cluster::Cluster;

impl Cluster {
    /// Makes an empty database and returns its TCP address.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let name_quoted = name.replace('"', "\"\"");
        execute(&self.url("postgres"), &format!("create database \"{name_quoted}\" template template0"))
            .await
            .with_context(|| format!("could not make the database {name}"))?;
        Ok(self.url(name))
    }
}

/// A session without TLS, alive as long as the client.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.with_context(|| format!("could not connect to {url}"))?;
    // It ends with the client, and every error reaches the client's calls.
    tokio::spawn(connection);
    Ok(client)
}

/// Runs statements in a session of their own, which is over on return. Several without `begin`
/// are one transaction.
pub async fn execute(url: &str, sql: &str) -> Result<()> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.with_context(|| format!("could not connect to {url}"))?;
    let statements = async move { client.batch_execute(sql).await };
    let (result, _) = tokio::join!(statements, connection);
    result.context("a statement failed")
}

/// Makes the tables of a release in an empty database.
///
/// The dumps empty `search_path`, in their own session only.
pub async fn load(url: &str, schema: Schema) -> Result<()> {
    let client = connect(url).await?;
    client.batch_execute(schema.sql()).await.with_context(|| format!("could not load {schema}"))?;
    if let Some(version) = schema.alembic_version() {
        client
            .execute("insert into public.alembic_version (version_num) values ($1)", &[&version])
            .await
            .with_context(|| format!("could not set the migration of {schema}"))?;
    }
    Ok(())
}

/// Adds the administrator who signed up first. Fits every layout of [`Schema`].
///
/// The password is `testbed`.
pub async fn open_webui_admin(url: &str) -> Result<()> {
    execute(url, include_str!("../workload/open-webui-admin.sql"))
        .await
        .context("could not add the administrator")
}

macro_rules! schemas {
    ($($variant:ident = $name:literal, $file:literal;)*) => {
        /// The tables of one release, as that product's own migrations made them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Schema {
            $(#[doc = $name] $variant,)*
        }

        impl Schema {
            /// Every release, LiteLLM's first, each product's oldest first.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// A `pg_dump --schema-only`, with where it comes from in its first lines.
            pub fn sql(self) -> &'static str {
                match self { $(Self::$variant => include_str!(concat!("../schemas/", $file)),)* }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

schemas! {
    LiteLlm1_77_3 = "LiteLLM 1.77.3", "litellm-1.77.3.sql";
    LiteLlm1_110_2 = "LiteLLM 1.110.2", "litellm-1.110.2.sql";
    OpenWebUi0_6_30 = "Open WebUI 0.6.30", "open-webui-0.6.30.sql";
    OpenWebUi0_6_43 = "Open WebUI 0.6.43", "open-webui-0.6.43.sql";
    OpenWebUi0_7_2 = "Open WebUI 0.7.2", "open-webui-0.7.2.sql";
    OpenWebUi0_8_12 = "Open WebUI 0.8.12", "open-webui-0.8.12.sql";
    OpenWebUi0_9_6 = "Open WebUI 0.9.6", "open-webui-0.9.6.sql";
    OpenWebUi0_10_2 = "Open WebUI 0.10.2", "open-webui-0.10.2.sql";
    OpenWebUi0_11_4 = "Open WebUI 0.11.4", "open-webui-0.11.4.sql";
    OpenWebUi0_12_4 = "Open WebUI 0.12.4", "open-webui-0.12.4.sql";
    OpenWebUi0_12_4FromOld =
        "Open WebUI 0.12.4 upgraded from 0.6.30", "open-webui-0.12.4-upgraded-from-0.6.30.sql";
}

impl Schema {
    /// Whether it is one of LiteLLM's, the source; the others are Open WebUI's, the target.
    pub fn is_litellm(self) -> bool {
        matches!(self, Self::LiteLlm1_77_3 | Self::LiteLlm1_110_2)
    }

    /// Open WebUI's releases, oldest first.
    pub fn open_webui() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|schema| !schema.is_litellm())
    }

    /// The migration an Open WebUI database is at, from the dump's heading.
    pub fn alembic_version(self) -> Option<&'static str> {
        let heading = self.sql().lines().next()?;
        Some(heading.split_once("alembic_version = '")?.1.split_once('\'')?.0)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The source's end of WAL, after everything committed so far.
pub async fn current_lsn(url: &str) -> Result<String> {
    let row = connect(url).await?.query_one("select pg_current_wal_lsn()::text", &[]).await?;
    Ok(row.try_get(0)?)
}
